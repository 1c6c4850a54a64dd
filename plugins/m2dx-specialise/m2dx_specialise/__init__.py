"""`m2dx specialise`: is a specialised encoder worth it for these recordings, and which one."""
