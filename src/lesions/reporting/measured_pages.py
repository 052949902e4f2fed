"""docs/near_duplicates.md, cache.md, survival.md and step.md: what one benchmark measured."""

from collections.abc import Mapping
from typing import Any

from lesions.reporting.markdown import table


def _opening(name: str, title: str, command: str) -> list[str]:
    return [
        f"<!-- Written by scripts/docs.py from docs/results/{name}.json: do not edit. -->",
        f"# {title}",
        f"```\n{command}\n```",
    ]


def near_duplicates_page(results: Mapping[str, Any]) -> str:
    """The page, from what scripts/near_duplicates.py measured."""
    strangers = results["real_pairs_of_different_lesions"]
    many = results["many"]
    recall = [[kind, f"{share:.1%}"] for kind, share in results["recall"].items()]
    parts = [
        *_opening(
            "near_duplicates",
            "Near-duplicates found from pixels",
            "python scripts/near_duplicates.py --input input/ham10000 --images FOLDER --rows 60000",
        ),
        f"{results['planted']:,} copies were planted among {results['photographs']:,} real "
        f"photographs of HAM10000; {results['recall_all']:.1%} of them are found, and "
        f"{results['precision']:.1%} of the pairs found are a planted copy or one lesion. The "
        f"threshold, {results['threshold']}, was chosen on the same photographs.",
        table(["kind of copy", "found"], [*recall, ["all", f"{results['recall_all']:.1%}"]]),
        f"Pairs of photographs with different lesion ids that are called the same: "
        f"{len(strangers)}, a share of "
        f"{results['share_of_all_real_pairs_of_different_lesions']:.1g} of all such pairs.",
        table(["one", "other", "correlation"], [[a, b, f"{c:.3f}"] for a, b, c in strangers]),
        f"{many['rows']:,} images take {many['cpu_seconds']:.0f} s of one core.",
    ]
    return "\n\n".join(parts) + "\n"


def cache_page(results: Mapping[str, Any]) -> str:
    """The page, from what scripts/bench_cache.py measured."""
    sizes = results["sizes"]
    parts = [
        *_opening(
            "cache",
            "Making the image cache",
            "python scripts/bench_cache.py --images FOLDER ... --size 256 512",
        ),
        "Real photographs at published size, one core, CPU time, in turns with `cv2.imread` and an "
        "area resize; classes weighted as among ISIC 2019 and 2020. PSNR is against that full "
        "decode. The goals were 6x at 256 pixels and 4x at 512, a median of 40 dB, and no file "
        "under 36 and 45 dB. The ceiling is the scaled decode alone, with no reading, checking or "
        "resizing: what is left of it at 24 million pixels is reading the JPEG's own code, which "
        "no scaled decode saves, and files near the target's size have nothing to save.",
        table(
            [
                "pixels",
                "times as fast",
                "range",
                "ceiling",
                "images/s a core",
                "PSNR median",
                "PSNR least",
            ],
            [
                [
                    f"{size['size']}",
                    f"{size['ratio']:.1f}",
                    f"{min(size['ratios']):.1f} to {max(size['ratios']):.1f}",
                    f"{size['ceiling']:.1f}",
                    f"{size['images_per_second']:.0f}",
                    f"{size['psnr_median']:.1f} dB",
                    f"{size['psnr_least']:.1f} dB",
                ]
                for size in sizes
            ],
        ),
        table(
            ["originals", "share", "files", *(f"{s['size']} px: full / cache" for s in sizes)],
            [
                [name, f"{first['share']:.0%}", str(first["files"])]
                + [_milliseconds(size["classes"][name]) for size in sizes]
                for name, first in sizes[0]["classes"].items()
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def survival_page(results: Mapping[str, Any]) -> str:
    """The page, from what scripts/kill_test.py measured."""
    parts = [
        *_opening("survival", "Killed and resumed", "make kill-test"),
        f"**{results['identical']} of {results['points']} identical**: real training processes "
        "ended by SIGKILL and started again, then compared with a run that nobody killed, byte "
        "for byte: weights, optimiser state, out-of-fold file, history. "
        f"{results['within_a_save']} of the kills fell within a save, "
        f"{results['on_two_processes']} on two connected processes.",
        "A kill loses what was done since the last save: here one step at most "
        "(`train.save_steps=1`), by default ten minutes (`train.save_minutes`).",
        f"`{results['config']}` with `{'`, `'.join(results['changes'])}`.",
        table(
            ["processes", "workers before / after", "within a save", "steps saved", "differing"],
            [
                [
                    str(point["processes"]),
                    " / ".join(map(str, point["workers"])),
                    "yes" if point["within"] else "no",
                    str(point["saved_steps"]),
                    ", ".join(point["differing"]) or "nothing",
                ]
                for point in results["tried"]
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def step_page(results: Mapping[str, Any]) -> str:
    """The page, from what scripts/bench_step.py measured."""
    machine, seconds = results["machine"], results["seconds"]
    parts = [
        *_opening("step", "A training step", "python scripts/bench_step.py"),
        f"`{results['backbone']}` at {results['image_size']} pixels, {results['batch']} images a "
        f"step, random weights, {results['threads']} threads of {machine['cpu']}; "
        f"{results['repeats']} turns, wall time, median. The plain loop is eager float32 without "
        "clipping or averaging; ours is the step of `scripts/train.py`, clipping and moving "
        f"average included, in {results['precision']} and channels_last. torch "
        f"{results['versions']['torch']}.",
        table(
            ["loop", "seconds a step", "images/s", "times as fast"],
            [
                ["plain", *_rate(seconds["plain"], results["batch"]), "1"],
                [
                    "ours",
                    *_rate(seconds["ours"], results["batch"]),
                    f"{results['ratio']:.2f} ({results['low']:.2f} to {results['high']:.2f})",
                ],
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _rate(seconds: float, batch: int) -> list[str]:
    return [f"{seconds:.2f}", f"{batch / seconds:.1f}"]


def _milliseconds(measured: Mapping[str, float]) -> str:
    return f"{measured['full_decode_ms']:.1f} / {measured['cache_ms']:.1f} ms"
