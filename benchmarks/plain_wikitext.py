"""Turn WikiText's tokenized form into plain text: undo ` @-@ `, ` @,@ `, ` @.@ ` and drop `<unk>`.

python benchmarks/plain_wikitext.py valid.txt > plain.txt
"""

import re
import sys
from pathlib import Path


def plain(text: str) -> str:
    text = re.sub(r" @(.)@ ", r"\1", text)
    text = re.sub(r" ?<unk>", "", text)
    # An article's paragraphs are lines; an empty line between them lets a corpus be cut there.
    return "\n\n".join(line.strip() for line in text.splitlines() if line.strip())


if __name__ == "__main__":
    print(plain(Path(sys.argv[1]).read_text(encoding="utf-8")))
