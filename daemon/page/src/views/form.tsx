// What shall be painted: the prompt in front, everything else a request can hold below it, in groups.

import { useEffect } from "preact/hooks";
import { isAsked } from "../form/draft";
import type { Field } from "../form/schema";
import { useApp } from "./context";
import { FieldView } from "./field";
import { InitImage } from "./init_image";

type GroupName = "picture" | "sampling" | "start" | "larger" | "output" | "job";

/** Where keys are in the form. What is not here is in the group `other`, so that no key of the contract is missing. */
const GROUPS: Record<GroupName, string[]> = {
    picture: ["n_iter", "seed", "width", "height"],
    sampling: [
        "steps",
        "cfg_scale",
        "sampler_name",
        "scheduler",
        "eta",
        "clip_skip",
        "prompt_syntax",
        "decoder",
        "guidance_interval",
        "cache_interval",
    ],
    start: [
        "denoising_strength",
        "fit",
        "background",
        "mask_blur",
        "mask_blur_x",
        "mask_blur_y",
        "inpainting_fill",
        "inpainting_mask_invert",
        "inpaint_full_res",
        "inpaint_full_res_padding",
        "keep_unmasked",
    ],
    larger: ["upscale", "hires"],
    output: ["format", "preview", "output"],
    job: ["priority", "not_after", "id"],
};

const IN_FRONT = ["prompt", "negative_prompt", "init_images", "mask"];

export function Form() {
    const app = useApp();
    const { text, draft, fields, device, link } = app;
    const named = (key: string) => fields.find((field) => field.key === key);
    const groups = Object.entries(GROUPS).map(([name, keys]) => [name, keys.map(named)] as const);
    const listed = [...IN_FRONT, ...Object.values(GROUPS).flat()];
    const others = fields.filter((field) => !listed.includes(field.key));
    const all = [...groups, ["other", others] as const];
    const busy = device && [...device.jobs.values()].some((job) => job.state === "running" || job.state === "queued");
    useEffect(() => {
        const { focus } = app;
        app.focus = undefined;
        const found =
            focus === "problem"
                ? document.querySelector("form.paint .wrong")
                : focus && document.getElementById(focus.path);
        if (!found) return;
        found.closest("details")?.setAttribute("open", "");
        (found.querySelector<HTMLElement>("[aria-invalid]") ?? (found as HTMLElement)).focus();
    });
    useEffect(() => {
        // Ctrl+Enter sends from anywhere in the form.
        const send = (event: KeyboardEvent) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) app.submit();
        };
        const form = document.querySelector("form.paint");
        form?.addEventListener("keydown", send as EventListener);
        return () => form?.removeEventListener("keydown", send as EventListener);
    }, [app]);
    return (
        <form
            class="card paint"
            aria-labelledby="form-title"
            noValidate
            onSubmit={(event) => {
                event.preventDefault();
                app.submit();
            }}
        >
            <h2 id="form-title">{text.form.title}</h2>
            {named("prompt") && <FieldView field={named("prompt")!} hint={false} />}
            {named("negative_prompt") && <FieldView field={named("negative_prompt")!} hint={false} />}
            <InitImage />
            <Shapes />
            <details>
                <summary>{text.form.more}</summary>
                {all.map(([name, members]) => {
                    const shown = members.filter(
                        (field): field is Field => field !== undefined && isAsked(field, draft),
                    );
                    if (shown.length === 0) return null;
                    return (
                        <fieldset key={name}>
                            <legend>{text.form.groups[name as GroupName | "other"]}</legend>
                            <div class="fields">
                                {shown.map((field) => (
                                    <FieldView key={field.path} field={field} />
                                ))}
                            </div>
                        </fieldset>
                    );
                })}
                <button type="button" onClick={() => app.setDraft({})}>
                    {text.form.reset}
                </button>
            </details>
            <div class="send">
                <button class="main" type="submit" disabled={!device}>
                    {busy ? text.form.paintMore : text.form.paint}
                </button>
                <p class="say" role="status">
                    {app.note || (link.is !== "up" && device ? text.form.notConnected : "")}
                </p>
            </div>
        </form>
    );
}

/** Three shapes at the model's own size, by two taps less than width and height. */
function Shapes() {
    const app = useApp();
    const { text, draft, device } = app;
    const sizes = device?.info?.sizes;
    if (!sizes || draft.init_images) return null;
    const { default: side, multiple, smallest } = sizes;
    const round = (value: number) => Math.max(smallest, Math.round(value / multiple) * multiple);
    const [long, short] = [round(side * 1.25), round(side * 0.8)];
    const shapes = {
        square: ["", ""],
        portrait: [String(short), String(long)],
        landscape: [String(long), String(short)],
    };
    const standard = String(side);
    const is = (key: string) => (draft[key] === standard ? "" : (draft[key] ?? ""));
    return (
        <div class="shapes" role="radiogroup" aria-label={text.form.shape}>
            {Object.entries(shapes).map(([name, [width, height]]) => (
                <label key={name} class="shape">
                    <input
                        type="radio"
                        name="shape"
                        checked={is("width") === width && is("height") === height}
                        onChange={() => {
                            app.type("width", width!);
                            app.type("height", height!);
                        }}
                    />
                    <span class={`frame ${name}`} aria-hidden="true" />
                    {text.form.sizes[name as keyof typeof shapes]}
                </label>
            ))}
        </div>
    );
}
