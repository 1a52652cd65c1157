import json

import numpy as np
import pytest
from made_up_data import HEIGHT, WIDTH, colour, config, load_annotated, moving_box, write_refdet

from fsdet.data.episodes import EpisodeSource
from fsdet.data.images import count_frames, read_frames
from fsdet.data.refdet import read_refdet
from fsdet.data.sources import check_data, load_image_set
from fsdet.errors import DataError


@pytest.fixture
def dataset(tmp_path):
    return write_refdet(tmp_path / "videos")


def settings_of(dataset, **settings):
    values = {"novel_classes": ("video_0", "video_1"), "k_shot": 3}
    return config(dataset, "refdet", **{**values, **settings})


def test_frames_of_the_video_are_those_that_were_asked_for(dataset):
    file = dataset / "samples" / "video_2" / "drone_video.mp4"
    assert count_frames(file) == 30
    wanted = [0, 1, 7, 12, 29, 30, 41]
    frames = list(read_frames(file, wanted))
    assert [frame is None for frame in frames] == [False] * 5 + [True] * 2
    for number, frame in zip(wanted, frames[:5], strict=False):
        assert frame.shape == (HEIGHT, WIDTH, 3)
        assert abs(float(frame[2:10, -8:].mean()) - 5 * number) < 3
        x1, y1, x2, y2 = moving_box(number)
        inside = frame[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4].reshape(-1, 3).mean(0)
        np.testing.assert_allclose(inside, colour(2), atol=25)


def test_boxes_lie_on_the_object_and_the_class_is_the_video(dataset):
    settings = settings_of(dataset)
    for split, videos in (("train", (2, 3)), ("base", (2, 3)), ("val", (0, 1)), ("test", (0, 1))):
        image_set = load_image_set(settings, split)
        assert image_set.names == tuple(f"video_{v}" for v in videos)
        assert len(image_set.labels) > 1
        for number in range(len(image_set)):
            for box, label in zip(*image_set.objects(number), strict=True):
                x, y = ((box[:2] + box[2:]) / 2).astype(int)
                near = image_set.image(number)[y - 3 : y + 3, x - 3 : x + 3].reshape(-1, 3).mean(0)
                np.testing.assert_allclose(near, colour(videos[label]), atol=25)
                assert image_set.groups[number] == label


def test_frames_without_annotation_are_queries_without_a_target(dataset):
    image_set = load_image_set(settings_of(dataset, frames_per_video=16), "train")
    counts = np.diff(image_set.offsets)
    assert set(counts.tolist()) == {0, 1}
    data = load_annotated(settings_of(dataset, frames_per_video=16))
    for label in range(4):
        mine = [r for r in data.dataset.records if r.video == label]
        assert sum(len(r.labels) > 0 for r in mine) == 16
        assert sum(len(r.labels) == 0 for r in mine) == 4


def test_the_end_of_a_base_video_is_never_trained_on(dataset):
    data = load_annotated(settings_of(dataset))
    for video in (2, 3):
        frames = {
            subset: [
                r.image.frame
                for r in data.dataset.records
                if (r.video, r.subset) == (video, subset) and len(r.labels)
            ]
            for subset in ("train", "eval")
        }
        assert max(frames["train"]) < min(frames["eval"])
        assert len(frames["eval"]) == pytest.approx(20 / 5, abs=1)
    train, base = (load_image_set(settings_of(dataset), split) for split in ("train", "base"))
    assert not {*train.rows} & {*base.rows}


def test_the_shots_of_a_novel_video_are_not_evaluated_on(dataset):
    settings = settings_of(dataset)
    shots, val, test = (load_image_set(settings, split) for split in ("shots", "val", "test"))
    assert np.bincount(shots.labels).tolist() == [3, 3]
    assert not {*shots.rows} & ({*val.rows} | {*test.rows})
    assert not {*val.rows} & {*test.rows}


def test_frames_stand_in_the_order_of_time(dataset):
    data = load_annotated(settings_of(dataset))
    frame_of = {int(row): data.decoded.contents[row][1] for row in data.decoded.rows}
    for split in ("train", "base", "val"):
        image_set = load_image_set(settings_of(dataset), split)
        for video in np.unique(image_set.groups):
            frames = [frame_of[int(r)] for r in image_set.rows[image_set.groups == video]]
            assert frames == sorted(frames)
            assert len(set(frames)) == len(frames) > 1


def test_supports_are_the_photos_of_the_object(dataset):
    image_set = load_image_set(settings_of(dataset), "val")
    assert (image_set.support_images == -1).all()
    assert image_set.support_counts.tolist() == [3, 3]
    for label in range(2):
        centre = image_set.supports[label, :, 12:20, 12:20].reshape(-1, 3).astype(float)
        np.testing.assert_allclose(centre, np.tile(colour(label), (len(centre), 1)), atol=6)


def test_no_more_than_k_photos_serve(dataset):
    image_set = load_image_set(settings_of(dataset, k_shot=2, n_shot=2), "val")
    assert image_set.supports.shape[1] == 2


def test_its_episodes_can_be_dealt(dataset):
    settings = settings_of(dataset, n_shot=2)
    for split in ("train", "val", "shots"):
        source = EpisodeSource(load_image_set(settings, split), settings, 0, augment=False)
        assert source.batch(0, 10).targets.mask.any()


def test_the_annotations_may_lie_in_a_folder_of_their_own(dataset):
    before = read_refdet(settings_of(dataset))
    (dataset / "annotations").mkdir()
    (dataset / "annotations.json").rename(dataset / "annotations" / "annotations.json")
    after = read_refdet(settings_of(dataset))
    assert after.names == before.names
    assert [r.image for r in after.records] == [r.image for r in before.records]
    assert all(
        map(np.array_equal, (r.boxes for r in after.records), (r.boxes for r in before.records))
    )


def test_what_is_not_there_is_refused_at_the_door(dataset):
    (dataset / "samples").rename(dataset / "elsewhere")
    with pytest.raises(DataError, match="samples: no such folder"):
        check_data(settings_of(dataset))
    (dataset / "annotations.json").unlink()
    with pytest.raises(DataError, match=r"annotations\.json: no such file"):
        check_data(settings_of(dataset))


@pytest.mark.parametrize(
    ("text", "message"), [("{}", "must hold a list"), ("[", "not valid JSON"), ("[]", "0 of 0")]
)
def test_broken_annotations_are_refused_at_the_door(dataset, text, message):
    (dataset / "annotations.json").write_text(text)
    with pytest.raises(DataError, match=message):
        check_data(settings_of(dataset))


def test_two_boxes_of_a_frame_are_two_objects(dataset):
    content = json.loads((dataset / "annotations.json").read_text())
    content[2]["annotations"].append(
        {"bboxes": [{"frame": 5, "x1": 60, "y1": 2, "x2": 70, "y2": 12}]}
    )
    (dataset / "annotations.json").write_text(json.dumps(content))
    data = load_annotated(settings_of(dataset))
    (record,) = [r for r in data.dataset.records if (r.video, r.image.frame) == (2, 5)]
    assert len(record.labels) == 2


def subsets_of(data, video: int) -> dict[int, str]:
    """Annotated frame -> its subset."""
    records = [r for r in data.dataset.records if r.video == video and len(r.labels)]
    return {r.image.frame: r.subset for r in records}


def test_the_fifth_held_out_follows_the_split_of_the_classes_that_can_be_used(tmp_path):
    """A class whose boxes all lie outside is no class, so others become novel than by the names alone."""
    root = write_refdet(tmp_path / "eight", videos=8)
    lost = int(np.random.default_rng((0, 8)).permutation(8)[0])
    edited(root, lambda content: [b.update(x1=900, x2=930) for b in bboxes(content, lost)])
    data = load_annotated(config(root, "refdet"))
    assert lost not in {*data.split.base, *data.split.novel}
    for video in data.split.novel:
        subsets = subsets_of(data, video)
        assert all(
            subset == ("train" if frame <= 8 else "eval") for frame, subset in subsets.items()
        )
    for video in data.split.base:
        subsets = subsets_of(data, video)
        assert all(
            subset == ("eval" if frame > 20 else "train") for frame, subset in subsets.items()
        )


@pytest.mark.parametrize("frame", [30, 100_000, 10**30])
def test_an_annotation_beyond_the_end_moves_no_other_frame(dataset, frame):
    sound = [subsets_of(load_annotated(settings_of(dataset)), video) for video in (0, 3)]
    for video in (0, 3):
        edited(dataset, lambda c, v=video: bboxes(c, v).append({**bboxes(c, v)[0], "frame": frame}))
    data = load_annotated(settings_of(dataset, n_query=2))  # read again
    assert [subsets_of(data, video) for video in (0, 3)] == sound
    assert [(p.kind, p.count) for p in data.problems] == [("frame beyond the end", 2)]


def bboxes(content, video):
    return content[video]["annotations"][0]["bboxes"]


def edited(root, edit):
    content = json.loads((root / "annotations.json").read_text())
    edit(content)
    (root / "annotations.json").write_text(json.dumps(content))
