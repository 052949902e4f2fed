"""Download data sets from their owners into input/, and resume what an earlier command began.

Prints size, licence and free disk first. Every file is checked and listed in SHA256SUMS beside it;
what is there is not fetched again. Kaggle's files need a token (the error says how to make one) and
the competition's rules accepted once in a browser.

    python scripts/download.py isic2020 isic2019          # the competition and the year before
    python scripts/download.py isic2020 --tables-only     # only the CSVs, 6 MB
    python scripts/download.py deotte-512                 # resized: 5 GB instead of 40
    python scripts/download.py ham10000 dermamnist --dry-run

Data sets: isic2020, isic2019, isic2018, isic2017, ham10000, dermamnist, dermamnist-224, deotte-512.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
from lesions.cli import build_parser, run


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser(__doc__)
    parser.add_argument("names", nargs="+", help="data sets")
    parser.add_argument("--tables-only", action="store_true", help="no photographs")
    parser.add_argument("--dry-run", action="store_true", help="print what would be downloaded")
    args = parser.parse_args(arguments)

    from lesions.data.downloads import download, plan
    from lesions.kaggle.client import fetch

    files = plan(args.names, args.tables_only)
    if args.dry_run:
        return 0
    for number, file in enumerate(files, 1):
        print(f"{number}/{len(files)} {file['name']}")
        print(f"  sha256 {download(file, fetch)}")
    print("next: python scripts/prepare.py --dataset NAME (configs/datasets; isic, ham10000, ...)")
    return 0


if __name__ == "__main__":
    run(main)
