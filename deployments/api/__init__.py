"""The REST API: Microsoft.ImportExport as its published clients speak it, and what a portal needs beside it."""
