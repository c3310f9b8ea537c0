"""HTTP on the socket: dialects in, one pipeline, dialects out."""
