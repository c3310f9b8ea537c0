"""A stream's events as the whole answer that they make, and a whole answer as a stream.

Of every form: an answer that is kept is given again in the words that it came in. Pure.
"""
