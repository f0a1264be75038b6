"""Know: facts as data files, each row with its source, and the typed readers over them."""
