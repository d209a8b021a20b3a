"""A run as one page that needs neither a server nor a network: its results, its curves, its layers, its tracked tiles.

about    what the run is and what came out, as plain values
curves   the figures of the run, drawn by `proxsparse.figures`, each with what it shows and how to read it
layers   numbers of each layer over the steps, for the map of the layers
tiles    the masks and soft weights of the tracked tiles, thinned to a number of bytes
packing  arrays as text, which the page's scripts unpack
page     all of it, with the chart library and the files in web/, in one file
"""

from proxsparse.report.page import MOST_BYTES, report_page, write_report

__all__ = ["MOST_BYTES", "report_page", "write_report"]
