#!/usr/bin/env python3
"""Measures what users of the crate pay, and compares it with benches/baseline.json.

    python3 benches/run.py                    all sections, at most ten minutes after the build
    python3 benches/run.py --quick            fewer rounds, about two minutes
    python3 benches/run.py --save cpu memory  some sections, saved as the new baseline
"""
import argparse

import cpu
import tools

SECTIONS = {"cpu": cpu}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="run fewer rounds")
    parser.add_argument("--save", action="store_true", help="save the figures as the baseline")
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)} (all by default)")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(unknown)}")
    for name in arguments.sections or SECTIONS:
        figures = SECTIONS[name].run(arguments.quick, tools.load().get(name, {}))
        if arguments.save:
            tools.save(name, figures)


if __name__ == "__main__":
    main()
