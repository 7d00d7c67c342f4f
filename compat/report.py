"""Counts checks. A failure is printed when it happens; an area ends with one line."""

import time


class Report:
    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.area_name = None
        self.area_counts = (0, 0)
        self.area_started = 0.0

    def area(self, name):
        self.end_area()
        self.area_name = name
        self.area_counts = (self.passed, self.failed)
        self.area_started = time.monotonic()

    def end_area(self):
        if self.area_name is None:
            return
        passed, failed = self.passed - self.area_counts[0], self.failed - self.area_counts[1]
        word = "ok" if failed == 0 and passed > 0 else "FAILED"
        if passed + failed == 0:
            self.failed += 1
            print("  it checked nothing")
        seconds = time.monotonic() - self.area_started
        # Worded unlike the last line, so that whoever adds up counts takes only that one.
        print(f"{word:6} {self.area_name}: {passed} of {passed + failed} ({seconds:.1f} s)", flush=True)
        self.area_name = None

    def result(self, name, error=None):
        if error is None:
            self.passed += 1
        else:
            self.failed += 1
            print(f"  FAIL {self.area_name}: {name}: {error}", flush=True)

    def check(self, name, run):
        """Runs a function; an exception is a failure."""
        try:
            run()
        except Exception as error:  # any failure of a check is its result
            self.result(name, f"{type(error).__name__}: {error}")
        else:
            self.result(name)

    def finish(self):
        self.end_area()
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 0 if self.failed == 0 and self.passed > 0 else 1
