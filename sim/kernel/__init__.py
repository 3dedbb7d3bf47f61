"""Network namespaces, and links shaped by the kernel."""
