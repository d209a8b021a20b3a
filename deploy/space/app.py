"""What a Hugging Face Space starts: the explorer on its recorded examples, where everybody may look and nothing is started or changed."""

import os
import sys

from proxsparse.cli import main

arguments = ["app", "--read-only", "--host", "0.0.0.0", "--port", os.environ.get("GRADIO_SERVER_PORT", "7860")]
if host := os.environ.get("SPACE_HOST"):  # what the proxy in front of it is called by, such as name.hf.space
    arguments += ["--allow-origin", f"https://{host}", "--embed-in", "https://huggingface.co"]
sys.exit(main(arguments))
