"""Which folders of a tree are the splits of a data set."""

import os
import re
import unicodedata

from keras_googlenet.data.contents import Skipped
from keras_googlenet.data.file_kinds import convert_command
from keras_googlenet.data.listing import Folder
from keras_googlenet.errors import UserError
from keras_googlenet.labels import composed

OUTSIDE = "image{s} (outside of the splits)"
OUTSIDE_CLASSES = "image{s} (outside of the class folders)"
_IN_NO_SPLIT = "image{s} (in no split)"
_SECOND = "image{s} (a second folder of this split)"
_MOST_NAMED = 3  # folders that an error names

_SPLIT_WORDS = {
    "train": "train(ings?|s|val|er)?|trn|learn(ing)?|lern|entrenamiento|entra[iî]nement|"
    "apprentissage|trein(o|amento)|addestramento|tr[äe]ning(owy|owe|owa)?|trénovací|trenovaci|"
    "e[ğg]itim|latih|pelatihan|huấn ?luyện|huan ?luyen|обучение|обучающ(ая|ий|ие)|тренировка|"
    "тренировочн(ая|ый|ые)|навчання|εκπαίδευση|训练|訓練|培训|学習|トレーニング|훈련|학습|트레이닝|تدريب",
    "validation": "val(id|idation|idate|idating|idierung|idering|idaci[oó]n|ida[cç][aã]o|"
    "idazione|idatie|idasi|idační|idacni|i)?s?|walidac(ja|yjny|yjne|yjna)|"
    "dev(el|elopment)?|eval(uation|uate)?|hold ?out|cv|cross ?validation|do[ğg]rulama|"
    "xác ?thực|thẩm ?định|валидаци(я|онная|онный)|валідація|проверочная|επικύρωση|"
    "验证|驗證|検証|バリデーション|검증|تحقق",
    "test": "test(ing|s|e|en|owy|owe|owa|ovací|ovaci)?|tst|pr(ü|ue)f|pruebas?|collaudo|uji|"
    "pengujian|kiểm ?tra|kiểm ?thử|kiem ?tra|тест(ов(ая|ый|ые)|ирование)?|δοκιμή|"
    "测试|測試|テスト|시험|테스트|اختبار",
}
_NO_CLASS = "imag(e|es|en)|imgs?|pictures?|pics?|photos?|frames|jpe?g|png"
# Words around them. None is a concatenation of others: a regular expression would try both ways at
# each position of a long name.
_FILLERS = (
    f"{_NO_CLASS}|"
    "the|my|all|data|sets?|folders?|dir|splits?|subset|partition|parts?|files|"
    "samples?|new|final|orig|original|resized|cropped|clean|raw|full|small|mini|tiny|seg|cls|"
    "clsloc|classification|ilsvrc|rgb|x|v|seen|unseen|"
    "daten|satz|bilder|menge|de|datos|dados|dane|donnees|données|conjunto|imagenes|"
    "imágenes|imagens|immagini|zbiór|zbior|zdjęcia|obrazy|veri(si|leri)?|seti|kümesi|gambar|"
    "citra|ảnh|dữ ?liệu|данные|выборка|набор|изображения|"
    "集|组|数据|數據|图片|图像|圖片|データ|セット|用|画像|데이터|세트|셋|용|이미지"
)
# Beside the images of a segmentation or detection, or where the classes are unknown.
_BESIDE_IMAGES = "masks?|labels?|annotations?|segmentations?|groundtruth|unknown|unlabell?ed|none"


def split_named(name: str) -> str | None:
    """Returns "train", "validation" or "test" if a folder or split has a name for it.

    Single letters do not count: `trainA`, `test_B`.

    Example:
    >>> [split_named(name) for name in ("Training", "valid", "test_images", "trainspotting")]
    ['train', 'validation', 'test', None]
    """
    text = _joined(name)
    for split, words in _SPLIT_WORDS.items():
        if re.fullmatch(f"({_FILLERS})*({words})({_FILLERS})*", text):
            return split
    return None


def names_no_class(name: str) -> bool:
    """Whether a folder's name says that images are in it, but not of which class.

    Example:
    >>> [name for name in ("images", "Unknown", "new_images", "cat", "7") if names_no_class(name)]
    ['images', 'Unknown', 'new_images']
    """
    words = f"{_FILLERS}|{_BESIDE_IMAGES}"
    return bool(re.fullmatch(f"({words})+", _joined(name)) or split_named(name))


def names_images_or_masks(name: str) -> bool:
    """Whether a name can hardly be that of a class, whatever folders are beside it.

    Example:
    >>> [name for name in ("images", "masks", "raw", "full") if names_images_or_masks(name)]
    ['images', 'masks']
    """
    return bool(re.fullmatch(f"({_NO_CLASS}|{_BESIDE_IMAGES})+", _joined(name)))


def splits_by_common_words(names: list[str]) -> dict[str, str]:
    """Finds the splits among names that share all words but that for the split.

    Example:
    >>> splits_by_common_words(["flowers_train", "flowers_val", "trees"])
    {'flowers_train': 'train', 'flowers_val': 'validation'}
    """
    groups = {}
    for name in names:
        words = _words(name)
        kinds = [split_named(word) if len(word) > 1 else None for word in words]
        if sum(kind is not None for kind in kinds) == 1:
            (index,) = (index for index, kind in enumerate(kinds) if kind)
            common = (*words[:index], *words[index + 1 :])
            groups.setdefault(common, {})[name] = kinds[index]
    several = [group for group in groups.values() if len(set(group.values())) > 1]
    return {name: kind for group in several for name, kind in group.items()}


def loose_name(name: str) -> str:
    """Returns a name without what copies of it differ by: case, blanks, `_` and `-`.

    Example:
    >>> loose_name("Natural-Images") == loose_name("natural_images ")
    True
    """
    return re.sub(r"[\s_-]+", "", composed(name).casefold())


def _words(name: str) -> list[str]:
    """Splits a name at digits, signs and camel case: `ILSVRC2012_img_train` has three words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    lower = spaced.casefold().replace("\u0307", "")  # the dot of a Turkish capital I
    return re.findall(r"[^\W\d_]+", lower)


def _joined(name: str) -> str:
    return "".join(word for word in _words(name) if len(word) > 1)


def find_split_folders(tree: Folder, skipped: Skipped) -> tuple[Folder, dict[str, Folder]]:
    """Finds the folder with the splits of a data set, and its "train", "validation" and "test".

    There are no splits where it holds the class folders themselves. Raises UserError if it holds
    several data sets, or splits without class folders.
    """
    while only := _only_folder_around(tree, beside_images=True):
        if tree.images:
            skipped.add(OUTSIDE_CLASSES, tree.path, len(tree.images))
        tree = only
    named = _named_splits(tree)
    inside = tree.with_images()
    if not _has_classes(named.get("train")):
        if len(inside) > 1 and any(map(_holds_data_set, inside)):
            return tree, _splits_of_classes(tree, skipped)
        if not _are_splits(tree, named):
            return tree, {}
    _check_split_folders(tree, named)
    splits = _choose_folders(named)
    for split in splits.values():
        if len(_train_and_others(split)) > 1:
            raise _several(tree, [split])
    _skip_others(tree, named, splits, skipped)
    return tree, splits


def only_folder(tree: Folder) -> Folder | None:
    """Returns the only folder that can hold classes, as in unpacked archives, or `None`."""
    inside = tree.with_images()
    if tree.images or len(inside) != 1 or any(map(_might_hold_images, tree.folders.values())):
        return None
    classes = inside[0].with_images()
    return inside[0] if len(classes) > 1 or classes and not inside[0].images else None


def unwrapped(tree: Folder) -> Folder:
    """Descends into only folders, such as `train/train/` of an archive that was unpacked twice."""
    while only := only_folder(tree):
        tree = only
    return tree


def without_classes(tree: Folder, folders: list[Folder]) -> UserError:
    """Returns the error about splits that hold images but no class folders."""
    return UserError(
        f"{tree.path} has {_list_folders(folders)} with images but without class folders; put the "
        "images of each class into a folder of its name there."
    )


def check_readable(folder: Folder):
    """Raises UserError if a folder has no image that can be read, but may hold some."""
    if folder.holds_images():
        return
    for inside in folder.all_folders():
        if inside.error:
            raise UserError(
                f"{inside.path} cannot be opened ({inside.error}); check its read permission, "
                "or remove it."
            )
    kinds = folder.to_convert()
    if kinds:
        counts = (
            f"{count:,} {kind} image{'s' * (count > 1)}" for (kind, _), count in kinds.items()
        )
        commands = dict.fromkeys(f"`{convert_command(*kind)}`" for kind in kinds)
        raise UserError(
            f"{folder.path} holds no image that can be read, but {' and '.join(counts)}; convert "
            f"with {' and '.join(commands)}."
        )


def shorten(names: list[str]) -> str:
    """Lists the first three names for an error."""
    return ", ".join(names[:_MOST_NAMED] + ["…"] * (len(names) > _MOST_NAMED))


def _only_folder_around(tree: Folder, beside_images: bool = False) -> Folder | None:
    """As `only_folder`, of a folder without splits."""
    if _named_splits(tree):
        return None
    only = only_folder(tree._replace(images=[]) if beside_images else tree)
    if only and tree.images and len(unwrapped(only).with_images()) < 2:
        return None  # a class, with an image beside it
    return only


def _might_hold_images(folder: Folder) -> bool:
    return not folder.holds_images() and bool(folder.error or folder.to_convert())


def _kinds(tree: Folder) -> dict[str, str]:
    """Maps names of folders inside to splits; those by common words come last."""
    names = [
        name
        for name, folder in tree.folders.items()
        if folder.holds_images() or _might_hold_images(folder)
    ]
    certain = {name: kind for name in names if (kind := split_named(name))}
    return certain | splits_by_common_words([name for name in names if name not in certain])


def _named_splits(tree: Folder) -> dict[str, list[Folder]]:
    """Finds the folders with names of splits; of several for one, the likeliest comes first."""
    kinds = {name: kind for name, kind in _kinds(tree).items() if tree.folders[name].holds_images()}

    def rank(name: str):
        return not _has_classes([tree.folders[name]]), split_named(name) is None, len(name), name

    named = {}
    for name in sorted(kinds, key=rank):
        named.setdefault(kinds[name], []).append(tree.folders[name])
    if "train" in named:  # `roses_val` does not belong to `daisies_train`
        train = named["train"][0].name()
        for kind, folders in named.items():
            named[kind] = [folder for folder in folders if _belong_together(train, folder.name())]
    return {kind: named[kind] for kind in ("train", "validation", "test") if named.get(kind)}


def _belong_together(train: str, other: str) -> bool:
    names = [train, other]
    return train == other or all(map(split_named, names)) or bool(splits_by_common_words(names))


def _has_classes(folders: list[Folder] | None) -> bool:
    """Whether the likeliest folder of a split holds class folders."""
    return bool(folders and folders[0].with_images())


def _train_and_others(folder: Folder) -> dict[str, list[Folder]]:
    """Returns the splits right inside of a folder if `train` is among them, otherwise nothing."""
    named = _named_splits(folder)
    return named if "train" in named else {}


def _holds_data_set(folder: Folder) -> bool:
    """Whether there are splits in a folder, `train` among them."""
    folder = _without_wrappers(folder)
    named = _train_and_others(folder)
    if not named:
        return False
    alone = len(folder.with_images()) == len(named["train"])
    return _has_classes(named["train"]) or len(named) > 1 or alone


def _without_wrappers(folder: Folder) -> Folder:
    while only := _only_folder_around(folder):
        folder = only
    return folder


def _are_splits(tree: Folder, named: dict[str, list[Folder]]) -> bool:
    """Whether folders with names of splits, without a `train` that holds classes, are splits."""
    folders = [folder for some in named.values() for folder in some]
    others = [folder for folder in tree.with_images() if folder not in folders]
    if any(map(_has_classes, named.values())):
        # A class may be called `test`, with folders inside as the others have.
        return len(folders) > 1 or len(others) < 2 or not all(_has_classes([o]) for o in others)
    if folders and not others or "train" in named and len(named) > 1:
        raise without_classes(tree, sorted(folders, key=lambda folder: len(folder.path)))
    return False


def _check_split_folders(tree: Folder, named: dict[str, list[Folder]]):
    """Raises UserError for splits of which nothing can be read, unless they are not needed."""
    for name, kind in _kinds(tree).items():
        folder = tree.folders[name]
        is_needed = kind != "test" or folder.error or folder.folders and "validation" not in named
        if kind not in named and is_needed:
            check_readable(folder)


def _choose_folders(named: dict[str, list[Folder]]) -> dict[str, Folder]:
    """Chooses the likeliest folder of each split, or all of them if each has its own classes."""
    splits = {}
    for kind, folders in named.items():
        train = splits.get("train")
        known = {loose_name(name) for name in unwrapped(train).folders} if train else None
        if known:  # of `eval/` and `validation/`, the one with classes of the training set
            folders = sorted(folders, key=lambda folder: _classes_of(folder).isdisjoint(known))
        splits[kind] = _merged(folders) if _are_parts(folders, known) else folders[0]
    return splits


def _classes_of(folder: Folder) -> set[str]:
    return {loose_name(inside.name()) for inside in unwrapped(folder).with_images()}


def _are_parts(folders: list[Folder], known: set[str] | None) -> bool:
    if len(folders) < 2 or not all(_has_classes([folder]) for folder in folders):
        return False
    names = [inside.name() for folder in folders for inside in folder.with_images()]
    classes = set(map(loose_name, names))
    return (
        len(classes) == len(names)
        and (known is None or classes <= known)
        and all(split_named(folder.name()) for folder in folders)
        and not any(map(names_no_class, names))
    )


def _merged(folders: list[Folder]) -> Folder:
    folders = sorted(folders, key=Folder.name)
    names = [folder.name() for folder in folders]
    start = os.path.commonprefix(names)
    pattern = f"{start}*" if start else f"{{{','.join(names)}}}"
    path = os.path.join(os.path.dirname(folders[0].path), pattern)
    images = [file for folder in folders for file in folder.images]
    inside = {name: each for folder in folders for name, each in folder.folders.items()}
    return Folder(path, images, inside, folders[0].others)


def _skip_others(tree: Folder, named, splits: dict[str, Folder], skipped: Skipped):
    """Counts the images beside the folders of the splits."""
    if tree.images:
        skipped.add(OUTSIDE, tree.path, len(tree.images))
    used = {id(folder) for split in splits.values() for folder in split.all_folders()}
    second = [folder for folders in named.values() for folder in folders]
    for folder in tree.with_images():
        if not any(id(inside) in used for inside in folder.all_folders()):
            reason = _SECOND if folder in second else _IN_NO_SPLIT
            skipped.add(reason, folder.path, len(folder.all_images()))


def _splits_of_classes(tree: Folder, skipped: Skipped) -> dict[str, Folder]:
    """Turns class folders with the splits inside into splits with the class folders inside."""
    classes = {}
    for name, folder in tree.folders.items():
        if folder.holds_images():
            folder = _without_wrappers(folder)
            classes[name] = folder, _named_splits(folder)
    if not all(_is_class_of_splits(*pair) for pair in classes.values()):
        raise _several(tree, [inside for inside in tree.with_images() if _holds_data_set(inside)])
    splits = {}
    for name, (folder, named) in classes.items():
        for kind, (inside, *_) in named.items():
            path = os.path.join(tree.path, "*", inside.name())
            split = splits.setdefault(kind, Folder(path, [], {}, tree.others))
            split.folders[name] = inside
        _skip_others(folder, named, {kind: some[0] for kind, some in named.items()}, skipped)
    if tree.images:
        skipped.add(OUTSIDE, tree.path, len(tree.images))
    return splits


def _is_class_of_splits(folder: Folder, named: dict[str, list[Folder]]) -> bool:
    """Whether a folder holds splits with the images of one class right inside."""
    splits = [inside for some in named.values() for inside in some]
    alone = len(splits) == len(folder.with_images())
    return bool(splits) and (alone or len(named) > 1) and not any(x.with_images() for x in splits)


def _several(tree: Folder, sets: list[Folder]) -> UserError:
    if len(sets) > 1:
        return UserError(
            f"{tree.path} holds several data sets ({_list_folders(sets)}); give one of them as "
            "--dataset."
        )
    return UserError(
        f"{tree.path} holds a data set with its own splits in {_list_folders(sets)} beside other "
        f"images; give {sets[0].path} as --dataset."
    )


def _list_folders(folders: list[Folder]) -> str:
    return shorten([f"{folder.name()}/" for folder in folders])
