"""SUPERB for m2dx: six speech tasks scored by s3prl, in a process of its own."""
