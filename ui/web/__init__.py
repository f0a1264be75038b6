"""The web page of `advisor ui`: widgets in, the command line's own functions, documents out. No logic of its own."""

UPLOAD_MIB = 4
