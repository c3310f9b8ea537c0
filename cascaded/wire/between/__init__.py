"""Between chat completions and the other forms: what one of them says, said in the other. Pure.

Every form is said in chat completions and chat completions in it, so that three forms need four
translations; between two others a call or an answer goes by way of chat completions.
"""
