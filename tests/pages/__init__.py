"""What one does on the server's pages, in a real browser."""
