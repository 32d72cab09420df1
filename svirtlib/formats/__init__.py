"""Reports as text: one module a format, each a function from a report to a string.

Nothing here reads the system or writes to a stream.
"""
