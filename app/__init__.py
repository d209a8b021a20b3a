"""The web explorer: screens only. It reads run directories, sends commands to them, and computes nothing itself."""
