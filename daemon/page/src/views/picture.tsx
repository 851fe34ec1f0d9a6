// One picture, with its parameters and what can be done with it.

import type { Picture } from "../device/devices";
import { useApp } from "./context";
import { Dialog } from "./dialog";

function fileName(picture: Picture): string {
    const prompt = String(picture.parameters?.prompt ?? picture.job);
    const words = prompt
        .toLowerCase()
        .replace(/[^\p{L}\p{N}]+/gu, "-")
        .replace(/^-|-$/g, "")
        .slice(0, 60);
    const seed = picture.parameters?.seed;
    return `${words || "picture"}${seed === undefined ? "" : `-${seed}`}.${picture.blob.type === "image/jpeg" ? "jpg" : "png"}`;
}

/** A parameter's value as a text. */
const shown = (value: unknown): string =>
    typeof value === "object" && value !== null
        ? Object.entries(value)
              .map(([key, part]) => `${key} ${String(part)}`)
              .join(", ")
        : String(value);

export function PictureView({ id }: { id: string }) {
    const app = useApp();
    const { text } = app;
    const all = app.devices.pictures;
    const at = all.findIndex((picture) => picture.key === id);
    const picture = all[at];
    if (!picture) return null;
    const parameters = Object.entries(picture.parameters ?? {}).filter(
        ([key, value]) => value !== null && value !== "" && key !== "prompt",
    );
    const total = picture.timings?.total;
    const go = (step: number) => {
        const next = all[at + step];
        if (next) app.open = { is: "picture", key: next.key };
        app.changed();
    };
    const close = () => {
        app.open = undefined;
        app.changed();
    };
    const canRepeat =
        picture.request !== undefined || picture.parameters?.denoising_strength == null || picture.parameters.hires;
    return (
        <Dialog title={String(picture.parameters?.prompt || text.pictures.untitled)} wide>
            <div
                class="view"
                onKeyDown={(event) => {
                    if (event.key === "ArrowLeft") go(-1);
                    if (event.key === "ArrowRight") go(1);
                }}
            >
                <div class="frame">
                    <img src={picture.url} alt={String(picture.parameters?.prompt ?? "")} />
                    <button
                        type="button"
                        class="plain before"
                        disabled={at === 0}
                        aria-label={text.pictures.previous}
                        onClick={() => go(-1)}
                    >
                        <svg viewBox="0 0 24 24" aria-hidden="true">
                            <path d="M15 5l-7 7 7 7" />
                        </svg>
                    </button>
                    <button
                        type="button"
                        class="plain after"
                        disabled={at === all.length - 1}
                        aria-label={text.pictures.next}
                        onClick={() => go(1)}
                    >
                        <svg viewBox="0 0 24 24" aria-hidden="true">
                            <path d="M9 5l7 7-7 7" />
                        </svg>
                    </button>
                </div>
                <div class="about">
                    <p class="actions">
                        {canRepeat && (
                            <button
                                type="button"
                                title={text.pictures.againMore}
                                onClick={() => {
                                    app.again(picture);
                                    close();
                                }}
                            >
                                {text.pictures.again}
                            </button>
                        )}
                        <button
                            type="button"
                            title={text.pictures.varyMore}
                            onClick={() => {
                                void app.vary(picture);
                                close();
                            }}
                        >
                            {text.pictures.vary}
                        </button>
                        <button type="button" onClick={() => void app.use(picture, false)}>
                            {text.pictures.use}
                        </button>
                        <button type="button" onClick={() => void app.use(picture, true)}>
                            {text.pictures.mask}
                        </button>
                        <button type="button" title={text.pictures.editMore} onClick={() => app.edit(picture)}>
                            {text.pictures.edit}
                        </button>
                        <a class="button" href={picture.url} download={fileName(picture)}>
                            {text.pictures.download}
                        </a>
                    </p>
                    <h3>{text.pictures.parameters}</h3>
                    <dl>
                        {parameters.map(([key, value]) => (
                            <div key={key}>
                                <dt>{text.form.labels[key] ?? key}</dt>
                                <dd>{shown(value)}</dd>
                            </div>
                        ))}
                        <div>
                            <dt>{text.devices.title}</dt>
                            <dd>{picture.device}</dd>
                        </div>
                    </dl>
                    {typeof total === "number" && <p class="muted">{text.pictures.took(text.seconds(total))}</p>}
                </div>
            </div>
        </Dialog>
    );
}
