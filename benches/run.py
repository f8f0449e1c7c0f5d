#!/usr/bin/env python3
"""Measures what users of the crate pay, and compares it with benches/baseline.json.

    python3 benches/run.py                    all sections, at most ten minutes after the build
    python3 benches/run.py --quick            fewer rounds and not counted, about two minutes
    python3 benches/run.py --save cpu memory  some sections, saved as the new baseline
    python3 benches/run.py --check counted    the guard of CI
"""
import argparse
import sys

import counted
import cpu
import memory
import scaling
import sockets
import tools
import trace

SECTIONS = {"cpu": cpu, "memory": memory, "trace": trace, "scaling": scaling, "counted": counted,
            "sockets": sockets}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="run fewer rounds")
    parser.add_argument("--save", action="store_true", help="save the figures as the baseline")
    parser.add_argument("--against", metavar="BINARY", nargs=1, default=[],
                        help="compare `cpu` with another build of it in the same rounds")
    parser.add_argument("--check", action="store_true",
                        help="fail if a figure of `counted` has grown by more than 5 %%")
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)} (all by default)")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(unknown)}")
    every = [name for name in SECTIONS if name != "counted" or not arguments.quick]
    for name in arguments.sections or every:
        known = tools.load().get(name, {})
        figures = SECTIONS[name].run(arguments, known)
        if figures and arguments.save:
            tools.save(name, figures)
        if figures and arguments.check and name == "counted":
            failures = list(counted.failures(figures["counts"], known))
            if failures:
                sys.exit("\n".join(["", "FAILED:", *failures]))
            print("\nno figure has grown by more than 5 %")


if __name__ == "__main__":
    main()
