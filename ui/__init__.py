"""Show: the command line, the terminal tables and the web page."""
