"""What people and monitors look at over HTTP: the status page, /metrics, /healthz and /readyz."""
