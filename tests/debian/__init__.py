"""Try the units, fstab and automounts in a Debian of its own, with a real, running systemd."""
