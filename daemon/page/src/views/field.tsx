// One field of the form, drawn as its kind asks for.

import type { Field } from "../form/schema";
import { useApp } from "./context";

/** The first sentence of the contract's own words, without its marks for code. */
const firstSentence = (words: string) =>
    words
        .replaceAll("\n", " ")
        .split(/(?<=[a-z`)])[.;:] /)[0]!
        .replace(/`/g, "")
        .replace(/\.$/, "") + ".";

export function FieldView({ field, hint = true }: { field: Field; hint?: boolean }) {
    const app = useApp();
    const { text, draft, problems } = app;
    const label = text.form.labels[field.path] ?? field.path;
    if (field.kind === "group") {
        return (
            <fieldset class={problems[field.path] ? "group wrong" : "group"} id={field.path} tabIndex={-1}>
                <legend>{label}</legend>
                <Problem path={field.path} />
                <div class="fields">
                    {field.fields.map((inner) => (
                        <FieldView key={inner.path} field={inner} hint={false} />
                    ))}
                </div>
            </fieldset>
        );
    }
    const own = text.form.hints[field.path];
    const words = hint && (own ?? (field.description ? firstSentence(field.description) : ""));
    const problem = problems[field.path];
    const described = [problem && `${field.path}-problem`, words && `${field.path}-hint`].filter(Boolean).join(" ");
    const common = {
        id: field.path,
        value: draft[field.path] ?? "",
        "aria-invalid": problem ? true : undefined,
        "aria-describedby": described || undefined,
        onInput: (event: Event) => app.type(field.path, (event.currentTarget as HTMLInputElement).value),
    };
    return (
        <div class={`field ${field.kind}${problem ? " wrong" : ""}`}>
            <label for={field.path}>{label}</label>
            <Control field={field} common={common} />
            <Problem path={field.path} />
            {words && (
                <p class="hint" id={`${field.path}-hint`} lang={own ? undefined : "en"}>
                    {words}
                </p>
            )}
        </div>
    );
}

function Control({ field, common }: { field: Field; common: Record<string, unknown> & { value: string } }) {
    const app = useApp();
    const { text } = app;
    const standard = field.standard ?? "";
    switch (field.kind) {
        case "choice":
        case "switch": {
            const names: Record<string, string> = { true: text.form.yes, false: text.form.no };
            const empty = names[standard] ?? (standard || text.form.byDefault);
            return (
                <select {...common}>
                    <option value="">{empty}</option>
                    {field.choices.map((choice) => (
                        <option key={choice} value={choice}>
                            {(field.kind === "switch" && names[choice]) || choice}
                        </option>
                    ))}
                </select>
            );
        }
        case "number":
            return (
                <input
                    {...common}
                    type="text"
                    inputMode={field.integer && (field.minimum ?? 0) >= 0 ? "numeric" : "decimal"}
                    placeholder={standard || (field.key === "seed" ? text.form.random : "")}
                    autocomplete="off"
                />
            );
        case "colour":
            return <input {...common} type="text" placeholder="#ffffff" autocomplete="off" spellcheck={false} />;
        case "time":
            return <input {...common} type="datetime-local" />;
        default:
            if (field.path === "prompt" || field.path === "negative_prompt") {
                return (
                    <textarea
                        {...common}
                        rows={field.path === "prompt" ? 3 : 2}
                        enterkeyhint={field.path === "prompt" ? "send" : undefined}
                    />
                );
            }
            return <input {...common} type="text" autocomplete="off" autocapitalize="none" spellcheck={false} />;
    }
}

/** What is wrong with a field. */
export function Problem({ path }: { path: string }) {
    const { text, problems } = useApp();
    const problem = problems[path];
    if (!problem) return null;
    return (
        <p class="problem" id={`${path}-problem`}>
            {text.problem(problem)}
        </p>
    );
}
