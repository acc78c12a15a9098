"""HTTP: the application, and one file for each dialect that it speaks."""
