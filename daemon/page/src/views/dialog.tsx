// A window over the page: the browser's own, which keeps the focus inside and closes with Escape.

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { useApp } from "./context";

export function Dialog({ title, wide, children }: { title: string; wide?: boolean; children: ComponentChildren }) {
    const app = useApp();
    const element = useRef<HTMLDialogElement>(null);
    useEffect(() => {
        const before = document.activeElement as HTMLElement | null;
        element.current!.showModal();
        return () => before?.focus();
    }, []);
    const close = () => {
        app.open = undefined;
        app.changed();
    };
    return (
        <dialog
            ref={element}
            class={wide ? "wide" : undefined}
            aria-labelledby="dialog-title"
            onClose={close}
            onClick={(event) => event.target === element.current && close()}
        >
            <div class="inside">
                <div class="top">
                    <h2 id="dialog-title">{title}</h2>
                    <button
                        type="button"
                        class="plain"
                        aria-label={app.text.close}
                        title={app.text.close}
                        onClick={close}
                    >
                        <svg viewBox="0 0 24 24" aria-hidden="true">
                            <path d="M6 6l12 12M18 6L6 18" />
                        </svg>
                    </button>
                </div>
                {children}
            </div>
        </dialog>
    );
}
