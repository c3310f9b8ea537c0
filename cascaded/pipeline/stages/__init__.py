"""One verb each. A stage is made with what it needs and then only sees request and decision."""
