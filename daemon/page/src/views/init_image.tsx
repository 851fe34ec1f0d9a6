// The image that is started from, and the mask over it.

import { useRef, useState } from "preact/hooks";
import { useApp } from "./context";
import { Problem } from "./field";

export function InitImage() {
    const app = useApp();
    const { text, draft } = app;
    const input = useRef<HTMLInputElement>(null);
    const [broken, setBroken] = useState(false);
    const take = async (file: Blob | undefined | null) => {
        if (!file) return;
        try {
            const { dataUrl } = await app.load(file);
            setBroken(false);
            app.type("init_images", dataUrl);
        } catch {
            setBroken(true);
        }
    };
    const openMask = () => {
        app.open = { is: "mask" };
        app.changed();
    };
    return (
        <div
            class="start"
            onDragOver={(event) => event.preventDefault()}
            onDrop={(event) => {
                event.preventDefault();
                void take(event.dataTransfer?.files[0]);
            }}
        >
            <input
                ref={input}
                id="init_images"
                class="file"
                type="file"
                accept="image/*"
                aria-label={text.form.image.take}
                onChange={(event) => {
                    void take(event.currentTarget.files?.[0]);
                    event.currentTarget.value = "";
                }}
            />
            {draft.init_images ? (
                <div class="chosen">
                    <div class="stack">
                        <img src={draft.init_images} alt={text.form.image.take} />
                        {draft.mask && <img class="mask" src={draft.mask} alt={text.form.labels.mask} />}
                    </div>
                    <p class="actions">
                        <button type="button" onClick={openMask}>
                            {draft.mask ? text.form.image.maskChange : text.form.image.mask}
                        </button>
                        {draft.mask && (
                            <button type="button" onClick={() => app.type("mask", "")}>
                                {text.form.image.maskRemove}
                            </button>
                        )}
                        <button type="button" onClick={() => app.type("init_images", "")}>
                            {text.form.image.remove}
                        </button>
                    </p>
                </div>
            ) : (
                <label class="drop" for="init_images">
                    <svg viewBox="0 0 24 24" aria-hidden="true">
                        <rect x="3" y="4" width="18" height="16" rx="2" />
                        <path d="M3 17l5-5 4 4 3-3 6 6" />
                        <circle cx="15.5" cy="9" r="1.5" />
                    </svg>
                    {text.form.image.choose}
                </label>
            )}
            {broken && (
                <p class="problem" role="alert">
                    {text.form.image.broken}
                </p>
            )}
            <Problem path="init_images" />
            <Problem path="mask" />
        </div>
    );
}
