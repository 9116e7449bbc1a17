// What the page uses of Observable Plot; `make` bundles it with what it needs of D3.
export { areaY, axisX, axisY, barX, dot, frame, gridX, gridY, lineY, link, plot, rect, ruleX, ruleY, stackX, text, tickX } from "@observablehq/plot";
