"""One number per document, from models trained on declared sources, and what is kept by it."""
