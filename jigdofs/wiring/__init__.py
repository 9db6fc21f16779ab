"""Put the house together: the only place that names concrete classes from every room."""
