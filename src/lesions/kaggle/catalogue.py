"""What can be downloaded: whose, under which licence, how large, from where, to which folder.

The names, folders, licences and sizes stand in input/README.md as well; a test compares them.
"""

from dataclasses import dataclass

from lesions.kaggle.remote import COMPETITION

ISIC = "https://isic-challenge-data.s3.amazonaws.com"
DATAVERSE = "https://dataverse.harvard.edu/api/access/datafile"
ZENODO = "https://zenodo.org/records/10519652/files"


@dataclass(frozen=True)
class Item:
    """One file: of the competition (`kaggle`), a Kaggle data set (`dataset`), or an `address`.

    `unpack`: "" leaves a zip as it is, which scripts/prepare.py reads; "tables" puts its CSVs into
    the folder; "all" makes the folder <name without .zip> of it and removes it. `instead`, where
    it is there, says that the file was unpacked, here or by hand. `megabytes` is rounded.
    """

    name: str
    megabytes: float
    address: str = ""
    dataset: str = ""
    kaggle: bool = False
    md5: str = ""
    unpack: str = ""
    instead: str = ""


def told_size(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.2g} GB"


@dataclass(frozen=True)
class Source:
    folder: str  # below input/
    licence: str
    page: str  # where the owner describes it
    items: tuple[Item, ...]

    @property
    def size(self) -> str:
        """As it is told: "30 GB"."""
        return told_size(sum(item.megabytes for item in self.items))


def _isic(year: int, name: str, megabytes: float, unpack: str = "", instead: str = "") -> Item:
    address = f"{ISIC}/{year}/{name}"
    return Item(name, megabytes, address, unpack=unpack, instead=instead)


def _deotte(name: str, megabytes: float) -> Item:
    return Item(f"{name}.zip", megabytes, dataset=f"cdeotte/{name}", unpack="all", instead=name)


NC = "CC BY-NC 4.0"
CHALLENGE = "https://challenge.isic-archive.com/data/"
CATALOGUE = {
    "isic2020": Source("isic2020", NC, f"https://www.kaggle.com/competitions/{COMPETITION}", (
        Item("train.csv", 2, kaggle=True),
        Item("test.csv", 0.5, kaggle=True),
        Item("sample_submission.csv", 0.2, kaggle=True),
        # Kaggle has neither of these two, and its photographs only file by file or with the DICOMs.
        _isic(2020, "ISIC_2020_Training_Duplicates.csv", 0.1),
        _isic(2020, "ISIC_2020_Training_GroundTruth_v2.csv", 3),
        _isic(2020, "ISIC_2020_Training_JPEG.zip", 23_000, instead="jpeg/train"),
        _isic(2020, "ISIC_2020_Test_JPEG.zip", 6_700, instead="jpeg/test"),
    )),
    "isic2019": Source("isic2019", NC, CHALLENGE + "#2019", (
        _isic(2019, "ISIC_2019_Training_GroundTruth.csv", 1.2),
        _isic(2019, "ISIC_2019_Training_Metadata.csv", 1.2),
        _isic(2019, "ISIC_2019_Training_Input.zip", 9_100, instead="ISIC_2019_Training_Input"),
    )),
    "isic2018": Source("isic2018", NC, CHALLENGE + "#2018", (
        _isic(2018, "ISIC2018_Task3_Training_GroundTruth.zip", 0.1, "tables",
              "ISIC2018_Task3_Training_GroundTruth.csv"),
        _isic(2018, "ISIC2018_Task3_Validation_GroundTruth.zip", 0.1, "tables",
              "ISIC2018_Task3_Validation_GroundTruth.csv"),
        _isic(2018, "ISIC2018_Task3_Training_LesionGroupings.csv", 0.4),
        _isic(2018, "ISIC2018_Task3_Training_Input.zip", 2_750,
              instead="ISIC2018_Task3_Training_Input"),
        _isic(2018, "ISIC2018_Task3_Validation_Input.zip", 50,
              instead="ISIC2018_Task3_Validation_Input"),
    )),
    "isic2017": Source("isic2017", "CC-0", CHALLENGE + "#2017", (
        _isic(2017, "ISIC-2017_Training_Part3_GroundTruth.csv", 0.1),
        _isic(2017, "ISIC-2017_Training_Data.zip", 5_800, "tables",
              "ISIC-2017_Training_Data_metadata.csv"),
    )),
    "ham10000": Source("ham10000", NC, "https://doi.org/10.7910/DVN/DBW86T", (
        Item("HAM10000_metadata.csv", 0.6, f"{DATAVERSE}/4338392?format=original"),
        Item("HAM10000_images_part_1.zip", 1_370, f"{DATAVERSE}/3172585",
             instead="HAM10000_images_part_1"),
        Item("HAM10000_images_part_2.zip", 1_400, f"{DATAVERSE}/3172584",
             instead="HAM10000_images_part_2"),
    )),
    "dermamnist": Source("dermamnist", NC, "https://medmnist.com", (
        Item("dermamnist.npz", 20, f"{ZENODO}/dermamnist.npz?download=1",
             md5="0744692d530f8e62ec473284d019b0c7"),
    )),
    "dermamnist-224": Source("dermamnist", NC, "https://medmnist.com", (
        Item("dermamnist_224.npz", 1_100, f"{ZENODO}/dermamnist_224.npz?download=1",
             md5="8974907d8e169bef5f5b96bc506ae45d"),
    )),
    "deotte-512": Source("deotte", "as the originals", "https://www.kaggle.com/cdeotte", (
        _deotte("jpeg-melanoma-512x512", 2_800),
        _deotte("jpeg-isic2019-512x512", 2_200),
    )),
}  # fmt: skip
