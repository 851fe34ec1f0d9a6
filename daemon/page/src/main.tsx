// The page's beginning.

import { render } from "preact";
import { App } from "./app";
import "./style.css";
import { Page } from "./views/page";

const app = new App();
const page = document.getElementById("page")!;
page.replaceChildren();
render(<Page app={app} />, page);
app.connect();
