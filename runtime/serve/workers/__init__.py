"""Several processes that serve the same models on the same ports, and their supervisor.

    supervisor       holds the ports, starts workers, forwards calls to all, replaces ended ones
    worker_process   a worker as the supervisor sees it
    worker           a whole server: its own sessions, queues and limits
    channel          calls between the two, over a socket pair

The kernel spreads connections over the workers (``SO_REUSEPORT``). A worker that is asked to load
or unload a model, or for statistics, asks the supervisor, which asks every worker.
"""
