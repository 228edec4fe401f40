"""What whoever watches a process that runs for long asks it for: metrics, health, readiness, and log lines.

The worker, the sink and the check as a service share it; what each counts lies with it.
"""
