"""What every request passes before our code sees it: its connection, who may call which route, and its body."""
