"""The customers' sheets as templates: a folder for each language, a file for each way out, page.html around them."""
