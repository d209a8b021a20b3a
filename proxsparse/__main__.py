import sys

from proxsparse.cli import main

sys.exit(main())
