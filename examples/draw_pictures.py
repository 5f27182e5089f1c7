"""Draws the pictures of this folder with mini's own world: a sign, a star, a number, shapes, a clip."""

from pathlib import Path

from vlinstruct.mini.draw import draw
from vlinstruct.mini.fonts import BUILT_IN
from vlinstruct.mini.scene import COLOURS, Print, Scene, Thing
from vlinstruct.mini.world import first_scene

HERE = Path(__file__).parent / "pictures"


def thing(colour: str, shape: str, x: float, y: float, size: float) -> Thing:
    return Thing(shape=shape, colour=colour, rgb=COLOURS[colour], x=x, y=y, size=size)


def text(words: str, colour: str, y: float, height: float, panel: str | None = None) -> Print:
    plate = COLOURS[panel] if panel else None
    return Print(text=words, colour=colour, rgb=COLOURS[colour], font=BUILT_IN, x=0.5, y=y, height=height, panel=plate)


def scene(background: str, things: tuple[Thing, ...], prints: tuple[Print, ...]) -> Scene:
    return Scene(background=background, background_rgb=COLOURS[background], things=things, prints=prints)


SCENES = {
    "sign.png": scene("white", (), (text("STOP", "white", 0.5, 0.28, "blue"),)),
    "star.png": scene("white", (thing("red", "star", 0.5, 0.5, 0.5),), ()),
    "shapes.png": first_scene(),
    "number.png": scene("green", (thing("white", "heart", 0.5, 0.75, 0.3),), (text("42", "white", 0.3, 0.3),)),
}

# Two seconds of eight frames.
FRAMES = [
    scene("white", (thing("blue", "star", 0.25 + place / 30, 0.75 - place / 30, 0.4),), ()) for place in range(16)
]


def write_clip(path: Path) -> None:
    import av  # pip install 'vlinstruct[video]'

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 400, 300, "yuv420p"
        for frame in FRAMES:
            container.mux(stream.encode(av.VideoFrame.from_image(draw(frame, (400, 300)))))
        container.mux(stream.encode())


if __name__ == "__main__":
    write_clip(HERE / "rising_star.mp4")
    for name, picture in SCENES.items():
        draw(picture, (400, 300)).save(HERE / name)
