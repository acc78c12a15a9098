"""What a picture was made with, as text and as a graph in its file, and the syntax of prompts."""
