// A mask drawn over the init image: what is painted over is white in the mask, and is repainted.

import { useEffect, useRef, useState } from "preact/hooks";
import { useApp } from "./context";
import { Dialog } from "./dialog";

interface Point {
    x: number;
    y: number;
}

interface Stroke {
    radius: number;
    points: Point[];
}

const COLOUR = "rgba(255, 61, 113, 0.6)";
/** How far an arrow key moves the brush, of the image's longer side. */
const KEY_STEP = 1 / 40;

/** Draws the strokes in one colour that does not add up where they cross. */
function draw(canvas: HTMLCanvasElement, strokes: Stroke[], colour: string): void {
    const context = canvas.getContext("2d")!;
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.globalCompositeOperation = "source-over";
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = "#fff";
    for (const { radius, points } of strokes) {
        context.lineWidth = radius * 2;
        context.beginPath();
        points.forEach(({ x, y }, i) => (i === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
        const [first] = points;
        if (first && points.length === 1) context.lineTo(first.x, first.y);
        context.stroke();
    }
    context.globalCompositeOperation = "source-in";
    context.fillStyle = colour;
    context.fillRect(0, 0, canvas.width, canvas.height);
}

/** White strokes on black. */
function maskOf(width: number, height: number, strokes: Stroke[]): string {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width, height });
    draw(canvas, strokes, "#fff");
    const context = canvas.getContext("2d")!;
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    return canvas.toDataURL("image/png");
}

export function MaskEditor() {
    const app = useApp();
    const { text } = app;
    const image = app.draft.init_images ?? "";
    const canvas = useRef<HTMLCanvasElement>(null);
    const [size, setSize] = useState<{ width: number; height: number }>();
    const [strokes, setStrokes] = useState<Stroke[]>([]);
    const [brush, setBrush] = useState(6);
    const [cursor, setCursor] = useState<Point>();
    const drawing = useRef(false);
    const longer = size ? Math.max(size.width, size.height) : 1;
    const radius = (longer * brush) / 100;

    useEffect(() => {
        const loaded = new Image();
        loaded.onload = () => setSize({ width: loaded.naturalWidth, height: loaded.naturalHeight });
        loaded.src = image;
    }, [image]);
    useEffect(() => {
        if (canvas.current && size) draw(canvas.current, strokes, COLOUR);
    }, [strokes, size]);

    const place = (event: PointerEvent): Point => {
        const box = canvas.current!.getBoundingClientRect();
        const scale = size!.width / box.width;
        return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
    };
    const begin = (point: Point) => setStrokes((all) => [...all, { radius, points: [point] }]);
    const extend = (point: Point) =>
        setStrokes((all) => {
            const last = all.at(-1);
            return last ? [...all.slice(0, -1), { ...last, points: [...last.points, point] }] : all;
        });
    const undo = () => setStrokes((all) => all.slice(0, -1));
    const keys = (event: KeyboardEvent) => {
        if (!size) return;
        const at = cursor ?? { x: size.width / 2, y: size.height / 2 };
        const moves: Record<string, [number, number]> = {
            ArrowLeft: [-1, 0],
            ArrowRight: [1, 0],
            ArrowUp: [0, -1],
            ArrowDown: [0, 1],
        };
        const move = moves[event.key];
        if (move) {
            const clamp = (value: number, most: number) => Math.min(most, Math.max(0, value));
            const [x, y] = [at.x + move[0] * longer * KEY_STEP, at.y + move[1] * longer * KEY_STEP];
            setCursor({ x: clamp(x, size.width), y: clamp(y, size.height) });
        } else if (event.key === " ") {
            setCursor(at);
            begin(at);
        } else if (event.key === "Backspace") {
            undo();
        } else {
            return;
        }
        event.preventDefault();
    };
    const percent = (value: number, of: number) => `${(100 * value) / of}%`;

    return (
        <Dialog title={text.mask.title} wide>
            <p class="muted">{text.mask.about}</p>
            {size && (
                <div
                    class="easel"
                    style={{ aspectRatio: `${size.width} / ${size.height}`, "--ratio": size.width / size.height }}
                >
                    <img src={image} alt="" draggable={false} />
                    <canvas
                        ref={canvas}
                        width={size.width}
                        height={size.height}
                        tabIndex={0}
                        role="img"
                        aria-label={text.mask.canvas}
                        onPointerDown={(event) => {
                            event.currentTarget.setPointerCapture(event.pointerId);
                            drawing.current = true;
                            setCursor(undefined);
                            begin(place(event));
                        }}
                        onPointerMove={(event) => {
                            if (!drawing.current) return;
                            for (const part of event.getCoalescedEvents?.() ?? [event]) extend(place(part));
                        }}
                        onPointerUp={() => (drawing.current = false)}
                        onPointerCancel={() => (drawing.current = false)}
                        onKeyDown={keys}
                    />
                    {cursor && (
                        <span
                            class="cursor"
                            aria-hidden="true"
                            style={{
                                left: percent(cursor.x, size.width),
                                top: percent(cursor.y, size.height),
                                width: percent(radius * 2, size.width),
                            }}
                        />
                    )}
                </div>
            )}
            <div class="tools">
                <label for="brush">{text.mask.brush}</label>
                <input
                    id="brush"
                    type="range"
                    min={1}
                    max={20}
                    value={brush}
                    onInput={(event) => setBrush(Number(event.currentTarget.value))}
                />
                <button type="button" disabled={strokes.length === 0} onClick={undo}>
                    {text.mask.undo}
                </button>
                <button type="button" disabled={strokes.length === 0} onClick={() => setStrokes([])}>
                    {text.mask.clear}
                </button>
                <button
                    type="button"
                    class="main"
                    disabled={strokes.length === 0 || !size}
                    onClick={() => {
                        app.type("mask", maskOf(size!.width, size!.height, strokes));
                        app.open = undefined;
                        app.changed();
                    }}
                >
                    {text.mask.done}
                </button>
            </div>
        </Dialog>
    );
}
