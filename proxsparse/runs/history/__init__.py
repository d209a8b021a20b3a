"""What a run remembers of its masks: the groups that changed at each step, one tile of soft weights a layer, summaries.

masks.safetensors   once: the start mask and, where it is another, the magnitude mask of every recorded layer, coded;
                    in its metadata, as JSON under "history", the layers, the recorded blocks, the tiles, the pattern
frames.bin          a row a recorded step, appended: the summary of all layers, then for each recorded block the groups
                    that changed, then for each recorded block the tiles; each part compressed by itself
frames.index        where the parts lie: a row of little-endian uint32 a recorded step: the step, every how many steps
                    were recorded then, and the length in bytes of each part

Row 0 is the start. A row is there once its index is whole, and the index is written last: what a crash leaves half
written is left out, and cut off by the next worker. `coding` says what the parts hold.
"""
