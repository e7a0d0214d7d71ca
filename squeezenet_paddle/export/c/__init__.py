"""The network in C99: one source file that takes pixels and needs libc alone."""
