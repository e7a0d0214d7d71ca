"""One HTML page that classifies images offline: the network compiled to WebAssembly."""
