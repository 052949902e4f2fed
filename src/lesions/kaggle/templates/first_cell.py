# Where is this, and where is the code? By what folders hold: mounts go by many names.
import os
import sys
import tempfile
from pathlib import Path

above = (
    folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "src/lesions").is_dir()
)
if Path("/kaggle/working").is_dir():
    place, inputs, working = "Kaggle", Path("/kaggle/input"), Path("/kaggle/working")
    os.environ["HF_HUB_OFFLINE"] = "1"  # no network: do not wait a minute to find out
elif "COLAB_RELEASE_TAG" in os.environ:
    from google.colab import drive

    drive.mount("/content/drive")
    place, inputs, working = "Colab", Path("/content"), Path("/content/drive/MyDrive/lesions")
elif checkout := next(above, None):
    place, inputs, working = "a checkout", checkout, checkout
else:
    raise FileNotFoundError("neither Kaggle nor Colab, and no checkout in or above this folder")

depths = ("*/" * depth + "src/lesions/paths.py" for depth in range(6))
code = next((file.parents[2] for depth in depths for file in sorted(inputs.glob(depth))), None)
if code is None:
    raise FileNotFoundError(f"no code below {inputs}: attach the data set lesions-code to it")
sys.path.insert(0, str(code / "src"))
if code != working:
    # The scripts work in here, on links to what is attached; results alone go to `working`.
    os.environ.setdefault("LESIONS_ROOT", tempfile.mkdtemp(prefix="lesions-"))

from lesions.kaggle.session import Session  # noqa: E402

session = Session(place, inputs, working)
