"""What the API takes (`body`), what it means once everything is resolved (`request`), and their units (`units`)."""
