"""Starts the web explorer: python app.py [--host 127.0.0.1] [--port 7860]."""

import sys

from app.main import main

sys.exit(main())
