"""The annotated example files that `example` prints."""
