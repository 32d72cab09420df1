"""The command line of svirtlib: it parses, calls the library and prints."""
