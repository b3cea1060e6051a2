"""Speaking programs that are driven from here: their C interfaces and processes."""
